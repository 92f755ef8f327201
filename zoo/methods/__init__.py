"""The methods of the SC2 paper: names and sizes of each method's models, as data.

Importing a method's module registers its models; none imports torch.
"""
