//! The OpenAI client against scripted peers.
