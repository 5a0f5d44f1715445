"""ShanghaiTech crowd counting, parts A and B."""
