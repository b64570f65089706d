//! sendoff: the HTTP task queue you run yourself.
