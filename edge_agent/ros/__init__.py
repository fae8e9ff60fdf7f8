"""ROS 2 adapters: the only place of the agent that imports rclpy."""
