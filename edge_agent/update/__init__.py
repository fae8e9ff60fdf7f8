"""Updates: an order is checked, its bundle fetched, checked, put into the spare slot, tried by control, committed."""
