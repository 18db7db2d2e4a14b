"""What people see: the mart, its chart, and the reports."""
