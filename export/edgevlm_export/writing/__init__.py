"""Files of a bundle: weights streamed into graphs, folders that appear whole or not at all."""
