"""The runbook as a page of the gateway, so that alerts link to something that is there."""
