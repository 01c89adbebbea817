def list_nifti(source, task, withdrawn):
    raise NotImplementedError
