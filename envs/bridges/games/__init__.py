"""Games of other packages in which several agents act, each as itself."""
