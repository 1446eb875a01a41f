"""How the networks of the drawn world were made; nothing here runs when they are used."""
