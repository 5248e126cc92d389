//! Names, API objects, mesh configuration and validation shared by every part of the mesh.
