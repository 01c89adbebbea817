"""The hospital's patients: from the sources' listings to prepared examples, and one side of the split as tensors."""
