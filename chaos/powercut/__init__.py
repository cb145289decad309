"""Power cuts: what a disk may hold after one, at any moment of a real writer's run."""
