"""What makes load. Each module here drives one program, and returns figures."""
