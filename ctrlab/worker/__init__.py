"""The background worker: takes jobs from the store and runs each in a process of its own."""
