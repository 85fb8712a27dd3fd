"""CheckpointStore: the newest good state of a room is never lost or forged, and a rollback is noticed."""
