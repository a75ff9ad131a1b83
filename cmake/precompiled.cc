// Nothing: the precompiled headers need a source (precompiled.cmake).
