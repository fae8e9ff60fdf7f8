"""The serial link between the agent and the motor controller: one schema, spoken in Python and in C."""
