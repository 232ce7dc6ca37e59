"""One folder a pipeline: thin nodes that call the library, and the graph that ties them."""
