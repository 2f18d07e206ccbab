"""One file a layer: what it computes, in our language, on the parameters of PyG's layer."""
