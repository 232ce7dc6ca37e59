"""Networks that advance the state of the atmosphere by one time step; torch only."""
