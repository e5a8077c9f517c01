"""Names, parameters and files of plug-ins, on which the registry rests."""
