"""What goes wrong between a command and the wheels, and between the world and the sensors."""
