"""Updates: a bundle is fetched, checked, put into the spare slot, offered to control and committed."""
