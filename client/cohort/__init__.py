"""The hospital's patients: from what its sources list to prepared examples, and one side of the split as tensors."""
