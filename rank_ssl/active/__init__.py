"""Which images to label next: cycles of training and asking (Algorithm 1), and a person's own pool.

A unit is what is labeled at once. After each training the units without a label are measured, a
rule gives each a value, and those of the smallest values are labeled.
"""
