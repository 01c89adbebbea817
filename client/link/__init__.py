"""The programs between the server and the hospital's code, and the security checklist for them."""
