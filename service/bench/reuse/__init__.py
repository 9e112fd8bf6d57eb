"""Documents that come back under new queries: cold and warm, with either side first in the
prompt."""
