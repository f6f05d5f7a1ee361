"""The crash matrix: whatever is killed, frozen or refused, the tables equal a fold over the whole topic, exactly."""
