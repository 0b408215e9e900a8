"""rapid as one static executable: an interpreter from source, and our modules frozen into it."""
