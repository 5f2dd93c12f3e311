"""The background worker: claims jobs from the store and runs each in an executor, such as a child process."""
