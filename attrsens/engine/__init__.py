"""From a request to results: cells, plan, store, run, report."""
