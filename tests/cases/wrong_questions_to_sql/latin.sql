select 'straße'
