"""Reports: notebooks with parameters, executed on one snapshot into artefacts that are kept."""
