"""Demo strategies: plain processes that use the public client, as anybody's would."""
