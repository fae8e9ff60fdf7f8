"""The same eyes in simulation and on the robot: floor, route, encoder, rule-based controllers. Numpy only."""
