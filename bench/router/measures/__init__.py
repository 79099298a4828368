"""What is measured, one module for each kind of load, and what is wanted of Hero."""
