"""From what arrives to what is observed: latest-value slots, checks on arrival, routes. No ROS here."""
