"""What two rooms must agree on: layouts, bundles, messages, records. Imports no room, no torch, no rclpy."""
