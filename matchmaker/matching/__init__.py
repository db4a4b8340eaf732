"""The matching itself: profiles, tickets, and the search for matches. Pure: no database and no clock."""
