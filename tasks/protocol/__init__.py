"""The protocol between server and hospitals: documents, messages, encodings, enrolment."""
