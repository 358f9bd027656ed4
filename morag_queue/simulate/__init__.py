"""A fleet that does not exist: discrete events under a virtual clock, through the same routing and balancing code."""
