"""report.html: one file that holds everything a command found, images too, and asks for nothing from outside."""
