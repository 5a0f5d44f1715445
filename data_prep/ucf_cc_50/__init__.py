"""UCF_CC_50 crowd counting, in five folds."""
