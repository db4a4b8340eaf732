"""Where a session is placed: inputs, filters, ranking, allocation, explanation and reevaluation."""
