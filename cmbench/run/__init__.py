"""Running a plan: jobs and engines."""
