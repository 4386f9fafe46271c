"""Files in and out.

    reading, scan    one door for every format, and what comes through it
    formats          one module for each of fastMRI, ISMRMRD, BART, twix, DICOM, NIfTI, sinograms
    guard            what a file may be before any of it is believed
    runs             the folder of a run: files that appear whole, results, the page about them
    checkpoints      released networks' files
    priors, config   prior files, YAML
"""
