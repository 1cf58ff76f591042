//! Silence: what may be quiet for how long, who is told meanwhile that all is well, and what the log says of it.
