"""What server and hospitals say to each other: documents, messages, encodings, enrolment."""
