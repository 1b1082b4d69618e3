"""The analytical store on Snowflake: its connection, the load of the change log, and the published marts."""
