"""What is read from outside: event files in bulk, files of requests, what has landed.

Begin with `engine_duckdb` (the port), then `event_reading` (which reader reads what). How an input is described:
`input_options`, `source_file`, `presets`, `columns_option`. Where files lie: `event_files`, `locations`, `local_files`,
`remote_files`, `file_names`, `file_bytes`. What rows mean: `input_file`, `field_sql`, `event_sql`.
"""
