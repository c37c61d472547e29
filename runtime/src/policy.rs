//! Annotations and the config file: what the operator and the user asked for.
