"""Images from an archive by DICOMweb or DIMSE, into a spool that verifies what was received."""
